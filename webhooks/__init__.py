"""The language of signed messages, in and out. Pure: `now` is always an argument."""
