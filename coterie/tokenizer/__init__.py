"""Floor 2: text to token numbers and back. One small interface; every kind is one file.

`settings` lists the kinds, `interface` says what each of them can do, `saving` writes and reads
them as one JSON file, `stream` turns tokens into text one at a time.
"""
