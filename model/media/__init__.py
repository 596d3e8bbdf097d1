"""Files become media, media become rows of numbers for the stems; nothing here needs torch."""
