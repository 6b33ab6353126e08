"""What had another name in the settings and tensors that older versions wrote, by its old name.

Keys are dotted paths below a run's settings; tensors are named by the beginning of their names.
"""

SETTINGS = {"model.ahead": "model.mtp"}
TENSORS = {"ahead.": "mtp."}
