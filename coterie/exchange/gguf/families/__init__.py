"""The architectures that can be read and written: a closed registry.

The order is the one in which an export tries them, the simplest first.
"""

from coterie.exchange.gguf.families.deepseek2 import DEEPSEEK2
from coterie.exchange.gguf.families.gpt2 import GPT2
from coterie.exchange.gguf.families.llama import LLAMA
from coterie.exchange.gguf.families.qwen import OLMOE, QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE
from coterie.exchange.gguf.family import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (LLAMA, QWEN2, QWEN3, GPT2, QWEN3_MOE, OLMOE, QWEN2_MOE, DEEPSEEK2)
}
