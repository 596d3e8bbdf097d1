"""The store on S3, or on anything that speaks it: `s3://BUCKET/PREFIX?endpoint=URL&region=NAME`.

A record is created by ONE PutObject with `If-None-Match: *`, never by a multi-part upload: Ceph's
gateway ignores the condition on CompleteMultipartUpload. The library's own retries are off there,
since a retry of a write that succeeded would be told that somebody else won. Before its first
record a store proves once that the server honours the condition; one that does not is refused.

Parts are uploaded in pieces, each with its MD5 (Ceph ignores the newer checksum headers, even wrong
ones); an upload that was interrupted goes on where it stopped. Every call has a deadline of ours: a
Ceph that lost too many disks blocks without an error.

boto3 is imported when a store is made (extra `s3`). Python 3.10.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qs, urlsplit

from orchestrator.errors import PermanentError, TransientError, UserError
from orchestrator.runtime.store import (
    Bytes,
    MissingKeyError,
    Stat,
    UnknownOutcomeError,
    check_key,
    is_key,
)

PIECE_BYTES = 16 * 1024 * 1024  #: of a multi-part upload; S3 takes 5 MiB or more
SINGLE_BYTES_MAX = PIECE_BYTES  #: larger objects are uploaded in pieces
CONNECT_S = 5.0
ANSWER_S = 20.0  #: seconds without a byte from the server
TRIES = 4  #: of a call that may be repeated
PAUSE_S = 0.2  #: before the second try; doubles, with jitter
LEFTOVER_AGE_S = 24 * 3600.0  #: an upload untouched for so long belongs to a dead writer
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

T = TypeVar("T")


@dataclass(frozen=True)
class S3Url:
    """Where a store is."""

    bucket: str
    prefix: str  #: "" or "a/b/"
    endpoint: str | None = None
    region: str | None = None

    @property
    def place(self) -> str:
        """The URL without its options, for people."""
        at = f" at {self.endpoint}" if self.endpoint else ""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/") + at


def parse_url(url: str) -> S3Url:
    """Read s3://BUCKET/PREFIX?endpoint=URL&region=NAME; raises `UserError` saying what is wrong."""
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise UserError(f"{url[:80]!r} cannot be read: {error}") from error
    unknown = options.keys() - {"endpoint", "region"}
    if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.fragment:
        raise UserError(f"expected s3://BUCKET/PREFIX, got {parts._replace(query='').geturl()!r}")
    if unknown or any(len(values) != 1 for values in options.values()):
        raise UserError("an S3 URL takes `endpoint` and `region` once each; keys never stand in it")
    endpoint = options.get("endpoint", [None])[0]
    if endpoint is not None and urlsplit(endpoint).scheme not in ("http", "https"):
        raise UserError(f"expected endpoint=https://HOST, got {endpoint!r}")
    prefix = parts.path.strip("/")
    if prefix:
        check_key(prefix)
        prefix += "/"
    return S3Url(parts.netloc, prefix, endpoint, options.get("region", [None])[0])


class S3Store:
    """One prefix of one bucket. Safe to share between threads, and made anew after a fork."""

    def __init__(
        self,
        url: str,
        env: Mapping[str, str] | None = None,
        *,
        answer: float = ANSWER_S,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make the client, which takes a moment (an agent does it before it listens); ask nothing.

        `env` may hold AWS_ACCESS_KEY_ID and its companions; without them boto3 looks where it
        always does. `answer` is in seconds.
        """
        self._url = parse_url(url)
        self._env = dict(env or {})
        self._answer, self._pause, self._clock = answer, pause, clock
        self._lock = threading.Lock()
        self._client: tuple[int, Any] | None = None  # (pid, client)
        self._proven = False
        self._s3()

    @property
    def place(self) -> str:
        """Where this store is, for people."""
        return self._url.place

    def put_exclusive(self, key: str, data: Bytes) -> bool:
        """Create `key` durably; False if it exists already. See `Store`."""
        full = self._full(key)
        self._prove()
        return self._create(full, data)

    def put_part(self, key: str, data: Bytes) -> None:
        """Write a large object durably, whole or not at all. See `Store`.

        An upload of the same key that was interrupted is taken up again: pieces that arrived whole
        are not sent twice.
        """
        full, view = self._full(key), memoryview(data).cast("B")
        if len(view) <= SINGLE_BYTES_MAX:
            body = bytes(view)
            self._repeat(
                key,
                lambda s3: s3.put_object(
                    Bucket=self._url.bucket, Key=full, Body=body, ContentMD5=_md5(body)
                ),
            )
            return
        self._upload(key, full, view)
        found = self.stat(key)
        if found is None or found.size_bytes != len(view):
            raise TransientError(f"{self._name(key)}: uploaded {len(view)} bytes, found {found}")

    def get_range(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return up to `length` bytes from `start`. See `Store`."""
        full = self._full(key)
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"no such range: {start}, {length}")
        if length == 0:
            if self.stat(key) is None:
                raise MissingKeyError(f"{self._name(key)}: no such object")
            return b""
        last = "" if length is None else str(start + length - 1)
        wanted = {} if (start, length) == (0, None) else {"Range": f"bytes={start}-{last}"}

        def read(s3: Any) -> bytes:
            try:
                body = s3.get_object(Bucket=self._url.bucket, Key=full, **wanted)["Body"]
            except _errors().ClientError as error:
                if _status(error)[0] == 416:  # begins at or after the end
                    return b""
                raise
            with body:
                data: bytes = body.read()  # fewer bytes than were announced are an error
            return data

        return self._repeat(key, read)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the keys under `prefix` that are greater than `after`, in order. See `Store`."""
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        asked = {"Bucket": self._url.bucket, "Prefix": self._url.prefix + prefix}
        if after:
            asked["StartAfter"] = self._url.prefix + after
        while True:
            page = self._repeat(prefix, lambda s3: s3.list_objects_v2(**asked))
            for one in page.get("Contents", ()):
                key = str(one["Key"])[len(self._url.prefix) :]
                if key > after and is_key(key):
                    yield key
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def stat(self, key: str) -> Stat | None:
        """Return size and time of an object, None if there is none."""
        full = self._full(key)
        try:
            head = self._repeat(
                key, lambda s3: s3.head_object(Bucket=self._url.bucket, Key=full), missing_ok=True
            )
        except MissingKeyError:
            return None
        return Stat(int(head["ContentLength"]), head["LastModified"].timestamp())

    def must_exist(self) -> None:
        """Note nothing: a bucket is never made by us, and one that is not there is an error."""

    def delete(self, key: str) -> None:
        """Remove an object; it is no error if there is none."""
        full = self._full(key)
        self._repeat(key, lambda s3: s3.delete_object(Bucket=self._url.bucket, Key=full))

    def sweep_leftovers(self) -> int:
        """Abort uploads that nobody went on with for `LEFTOVER_AGE_S`; return how many."""
        old = self._clock() - LEFTOVER_AGE_S
        count = 0
        for upload in self._uploads(self._url.prefix):
            if upload["Initiated"].timestamp() < old:
                self._abort(str(upload["Key"]), str(upload["UploadId"]))
                count += 1
        return count

    # --- records

    def _create(self, full: str, data: Bytes) -> bool:
        body, name = bytes(data), f"s3://{self._url.bucket}/{full}"
        errors = _errors()
        try:
            self._s3().put_object(
                Bucket=self._url.bucket,
                Key=full,
                Body=body,
                ContentMD5=_md5(body),
                IfNoneMatch="*",
            )
        except errors.ClientError as error:
            status, code = _status(error)
            if status == 412:
                return False
            if status == 409 or status >= 500:  # a race that S3 gave up, or no known outcome
                raise UnknownOutcomeError(f"{name}: {code} ({status})") from error
            self._refuse(name, error)
        except errors.BotoCoreError as error:
            raise UnknownOutcomeError(f"{name}: {_spoken(error)}") from error
        return True

    def _prove(self) -> None:
        """Find out once whether the server honours `If-None-Match`; raises `PermanentError`."""
        if self._proven:
            return
        full = f"{self._url.prefix}.proof/{secrets.token_hex(8)}"
        try:
            honest = self._create(full, b"1") and not self._create(full, b"2")
        except UnknownOutcomeError as error:
            raise TransientError(str(error)) from error
        finally:
            self._repeat(
                "proof",
                lambda s3: s3.delete_object(Bucket=self._url.bucket, Key=full),
                missing_ok=True,
            )
        if not honest:
            raise PermanentError(
                f"{self.place}: this server overwrites in spite of If-None-Match; two writers "
                "could both commit there. Keep the register elsewhere (`register`)"
            )
        self._proven = True

    # --- parts

    def _upload(self, key: str, full: str, view: memoryview) -> None:
        upload, have = self._begun(key, full, view)
        etags: dict[int, str] = {}
        for number, start in enumerate(range(0, len(view), PIECE_BYTES), 1):
            piece = bytes(view[start : start + PIECE_BYTES])
            if have.get(number) == hashlib.md5(piece, usedforsecurity=False).hexdigest():
                etags[number] = have[number]
                continue
            answer = self._repeat(key, self._piece(full, upload, number, piece))
            etags[number] = str(answer["ETag"]).strip('"')
        parts = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in etags.items()]
        self._repeat(
            key,
            lambda s3: s3.complete_multipart_upload(
                Bucket=self._url.bucket,
                Key=full,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
            ),
        )

    def _piece(self, full: str, upload: str, number: int, piece: bytes) -> Callable[[Any], Any]:
        return lambda s3: s3.upload_part(
            Bucket=self._url.bucket,
            Key=full,
            UploadId=upload,
            PartNumber=number,
            Body=piece,
            ContentMD5=_md5(piece),
        )

    def _begun(self, key: str, full: str, view: memoryview) -> tuple[str, dict[int, str]]:
        """Return an upload of this key and the pieces it has (number -> MD5); a new one if none."""
        for one in self._uploads(full):
            if one["Key"] == full:
                upload = str(one["UploadId"])
                return upload, dict(self._pieces(key, full, upload))
        made = self._repeat(
            key, lambda s3: s3.create_multipart_upload(Bucket=self._url.bucket, Key=full)
        )
        return str(made["UploadId"]), {}

    def _uploads(self, prefix: str) -> Iterator[dict[str, Any]]:
        asked: dict[str, Any] = {"Bucket": self._url.bucket, "Prefix": prefix}
        while True:
            page = self._repeat(prefix, lambda s3: s3.list_multipart_uploads(**asked))
            yield from page.get("Uploads", ())
            if not page.get("IsTruncated"):
                return
            asked["KeyMarker"] = page["NextKeyMarker"]
            asked["UploadIdMarker"] = page["NextUploadIdMarker"]

    def _pieces(self, key: str, full: str, upload: str) -> Iterator[tuple[int, str]]:
        asked: dict[str, Any] = {"Bucket": self._url.bucket, "Key": full, "UploadId": upload}
        while True:
            page = self._repeat(key, lambda s3: s3.list_parts(**asked))
            for part in page.get("Parts", ()):
                yield int(part["PartNumber"]), str(part["ETag"]).strip('"')
            if not page.get("IsTruncated"):
                return
            asked["PartNumberMarker"] = page["NextPartNumberMarker"]

    def _abort(self, full: str, upload: str) -> None:
        self._repeat(
            full,
            lambda s3: s3.abort_multipart_upload(
                Bucket=self._url.bucket, Key=full, UploadId=upload
            ),
            missing_ok=True,
        )

    # --- talking

    def _full(self, key: str) -> str:
        return self._url.prefix + check_key(key)

    def _name(self, key: str) -> str:
        return f"s3://{self._url.bucket}/{self._url.prefix}{key}"

    def _repeat(self, key: str, call: Callable[[Any], T], *, missing_ok: bool = False) -> T:
        """Make a call that may be made twice, a few times if the server is busy or silent."""
        errors, name = _errors(), self._name(key)
        for left in reversed(range(TRIES)):
            try:
                return call(self._s3())
            except errors.ClientError as error:
                status, _ = _status(error)
                if status == 404 and missing_ok:
                    raise MissingKeyError(f"{name}: no such object") from error
                if left == 0 or not (status >= 500 or status in (408, 409, 429)):
                    self._refuse(name, error)
            except (errors.BotoCoreError, errors.HTTPClientError, OSError) as error:
                if left == 0:
                    raise TransientError(f"{name}: {_spoken(error)}") from error
            self._pause(PAUSE_S * 2 ** (TRIES - 1 - left) * random.uniform(0.5, 1.0))
        raise AssertionError("unreachable")

    def _refuse(self, name: str, error: Any) -> NoReturn:
        status, code = _status(error)
        if code in ("NoSuchKey", "NoSuchUpload"):
            raise MissingKeyError(f"{name}: no such object") from error
        if status in (401, 403) or code == "NoSuchBucket":
            raise PermanentError(f"{name}: {code}: check the bucket and the keys") from error
        raise TransientError(f"{name}: {code} ({status})") from error

    def _s3(self) -> Any:
        """Return the client of this process: one that was made before a fork is not used."""
        with self._lock:
            if self._client is None or self._client[0] != os.getpid():
                self._client = (os.getpid(), self._make())
            return self._client[1]

    def _make(self) -> Any:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ModuleNotFoundError as error:
            raise PermanentError(
                f"{self.place} needs boto3 in this interpreter: pip install 'holdfast[s3]'"
            ) from error
        config = Config(
            connect_timeout=CONNECT_S,
            read_timeout=self._answer,
            retries={"total_max_attempts": 1, "mode": "standard"},
            tcp_keepalive=True,
            max_pool_connections=16,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if self._url.endpoint else "auto"},
        )
        access, secret, token = (self._env.get(name) or None for name in CREDENTIALS)
        try:
            return boto3.session.Session().client(
                "s3",
                endpoint_url=self._url.endpoint,
                region_name=self._url.region or self._env.get("AWS_REGION") or "us-east-1",
                aws_access_key_id=access,
                aws_secret_access_key=secret,
                aws_session_token=token,
                config=config,
            )
        except (BotoCoreError, ValueError) as error:
            raise PermanentError(f"{self.place}: {_spoken(error)}") from error


def _errors() -> Any:
    try:
        from botocore import exceptions
    except ModuleNotFoundError as error:
        raise PermanentError(
            "s3:// needs boto3 in this interpreter: pip install 'holdfast[s3]'"
        ) from error
    return exceptions


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _status(error: Any) -> tuple[int, str]:
    answer = error.response
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(answer.get("Error", {}).get("Code", "unknown"))[:60]


def _spoken(error: BaseException) -> str:
    return str(error)[:300] or type(error).__name__
