"""A model at work, in a browser: a page of plain modules, its server, and exports of one file."""
