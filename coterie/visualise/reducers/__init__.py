"""What views keep of a run: each reducer takes events one at a time and stays small.

`base` is the protocol, `curves` holds numbers and items in bounded memory; the others
are the reducers of this package, one idea each.
"""
