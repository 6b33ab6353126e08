"""How a GGUF file names what it says of its tokenizer."""

PREFIX = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = range(1, 6)
"""Types of tokens; 6 is a byte."""
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
NAMED = {
    "unk_token": "unknown_token_id", "sep_token": "seperator_token_id",
    "pad_token": "padding_token_id", "mask_token": "mask_token_id",
}  # fmt: skip
"""Further tokens by their names in a tokenizer_config.json; the spelling is the format's."""
TEMPLATE, TEMPLATES = "tokenizer.chat_template", "tokenizer.chat_templates"
