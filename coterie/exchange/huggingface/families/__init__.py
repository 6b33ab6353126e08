"""The families of foreign models that can be read and written: a closed registry, a file each.

The order is the one in which an export tries them, the simplest first.
"""

from coterie.exchange.huggingface.families.deepseek_v2 import DEEPSEEK_V2
from coterie.exchange.huggingface.families.deepseek_v3 import DEEPSEEK_V3
from coterie.exchange.huggingface.families.glm4_moe import GLM4_MOE
from coterie.exchange.huggingface.families.gpt2 import GPT2
from coterie.exchange.huggingface.families.llama import LLAMA
from coterie.exchange.huggingface.families.mistral import MISTRAL
from coterie.exchange.huggingface.families.mixtral import MIXTRAL
from coterie.exchange.huggingface.families.olmoe import OLMOE
from coterie.exchange.huggingface.families.qwen2_moe import QWEN2_MOE
from coterie.exchange.huggingface.families.qwen3_moe import QWEN3_MOE
from coterie.exchange.huggingface.family import Family

_IN_ORDER = (
    GPT2, LLAMA, MISTRAL, MIXTRAL, OLMOE, QWEN3_MOE, QWEN2_MOE, GLM4_MOE, DEEPSEEK_V2, DEEPSEEK_V3,
)  # fmt: skip
FAMILIES: dict[str, Family] = {family.name: family for family in _IN_ORDER}
