"""What a killed rank costs, with Holdfast and with its peers: same model, same kills."""
