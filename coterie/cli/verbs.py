"""The verbs of the command line: where each lives, what it does, and how it is called.

A table of texts, so that `coterie --help` imports no verb.
"""

from typing import NamedTuple


class Verb(NamedTuple):
    """Where a verb's function lives, one line about it, and two calls to copy."""

    path: str
    line: str
    examples: tuple[str, str]


# A group holds verbs of its own.
VERBS = {
    "demo": Verb(
        "coterie.cli.demo:demo",
        "From raw Shakespeare to text in three minutes.",
        ("coterie demo", "coterie demo train.steps=100 --name short"),
    ),
    "doctor": Verb(
        "coterie.cli.doctor:doctor",
        "Check this machine and the installation.",
        ("coterie doctor", "coterie doctor --json"),
    ),
    "train": Verb(
        "coterie.cli.train:train",
        "Train a preset or a settings file; resume a run.",
        (
            "coterie train quickstart data.source=my_book.txt train.steps=500 --name mine",
            "coterie train --resume mine train.steps=1000",
        ),
    ),
    "tune": Verb(
        "coterie.cli.tune:tune",
        "Find what makes a run fastest on this machine.",
        ("coterie tune quickstart", "coterie tune yinggem scale=tiny --out fast.yaml"),
    ),
    "plan": Verb(
        "coterie.cli.planning:plan",
        "Find settings with which a run fits into memory.",
        ("coterie plan s15era --memory 6", "coterie plan mymoe model.layers=24 --memory 12 --json"),
    ),
    "generate": Verb(
        "coterie.cli.generate:generate",
        "Write text with a trained model.",
        (
            'coterie generate latest "To be, or not" temperature=0.7 max_tokens=200',
            'coterie generate mine "Once" --samples 4 seed=1 --json',
        ),
    ),
    "visualise": Verb(
        "coterie.cli.visualise:visualise",
        "Watch a model write: routing, candidates, layers.",
        (
            'coterie visualise latest "To be" max_tokens=60',
            'coterie visualise latest "To be" --mask 1:5 --record masked.trace --plain',
        ),
    ),
    "watch": Verb(
        "coterie.cli.watch:watch",
        "Look at a run while it trains, from any terminal.",
        ("coterie watch latest", "coterie watch mine --plain"),
    ),
    "evaluate": Verb(
        "coterie.cli.evaluate:evaluate",
        "Measure a run on its own data or any file.",
        (
            "coterie evaluate mine other_book.txt --stride 64",
            "coterie evaluate mine --against latest --reward metre",
        ),
    ),
    "verify-resume": Verb(
        "coterie.cli.runs:verify_resume",
        "Prove that a run resumes bit for bit here.",
        ("coterie verify-resume latest", "coterie verify-resume mine --steps 50 --json"),
    ),
    "settings": Verb(
        "coterie.cli.settings:settings",
        "Explain any setting, its choices and who sets it.",
        (
            "coterie settings train.optimizer",
            "coterie settings --json-schema coterie.schema.json",
        ),
    ),
    "report": Verb(
        "coterie.cli.report:report",
        "Make one page about one or several runs.",
        ("coterie report latest --plots plots", "coterie report mine theirs --out both.html"),
    ),
}
GROUPS = {
    "presets": (
        "The ready-made configurations.",
        {
            "list": Verb(
                "coterie.cli.presets:list_presets",
                "List the presets.",
                ("coterie presets list", "coterie presets list --json"),
            ),
            "show": Verb(
                "coterie.cli.presets:show",
                "Show a preset's layers, counts and settings.",
                ("coterie presets show s15era", "coterie presets show gpt2 scale=tiny --json"),
            ),
            "copy": Verb(
                "coterie.cli.presets:copy",
                "Copy a preset to a file, to change it.",
                (
                    "coterie presets copy quickstart mine.yaml",
                    "coterie presets copy gpt2 mine.yaml --force",
                ),
            ),
        },
    ),
    "data": (
        "Turn texts into token stores.",
        {
            "clean": Verb(
                "coterie.cli.data_texts:clean",
                "Clean plays, poems and books.",
                (
                    "coterie data clean auto books/ --out clean",
                    "coterie data clean shakespeare hamlet.txt --out clean --tags inside",
                ),
            ),
            "dedup": Verb(
                "coterie.cli.data_texts:dedup",
                "Leave out documents that are there twice.",
                (
                    "coterie data dedup web.jsonl --out unique.jsonl",
                    "coterie data dedup books/ --out unique --threshold 0.7 --report twice.jsonl",
                ),
            ),
            "blend": Verb(
                "coterie.cli.data_texts:blend",
                "Tokenize a text with a share of others.",
                (
                    "coterie data blend shakespeare bible.jsonl --out store --special drama",
                    "coterie data blend mine.txt web.jsonl --out store --share 0.05",
                ),
            ),
            "prepare": Verb(
                "coterie.cli.data:prepare",
                "Tokenize texts into a store.",
                (
                    "coterie data prepare books/ --out store --tokenizer bpe:4096",
                    "coterie data prepare rows.jsonl --out store --column body --on-error skip",
                ),
            ),
            "join": Verb(
                "coterie.cli.parts:join",
                "Make a store of parts.",
                (
                    "coterie data join part-1 part-2 --out store",
                    "coterie data join parts/* --out store --valid-fraction 0.05",
                ),
            ),
            "merge": Verb(
                "coterie.cli.data:merge",
                "Mix stores in a ratio.",
                (
                    "coterie data merge verse prose --weights 0.7 0.3 --out both",
                    "coterie data merge a b c --strategy equal --epochs-at-most 4 --out abc",
                ),
            ),
            "inspect": Verb(
                "coterie.cli.data:inspect",
                "Show what a store holds.",
                ("coterie data inspect store", "coterie data inspect store --sample 200 --json"),
            ),
            "verify": Verb(
                "coterie.cli.data:verify",
                "Check every byte of stores.",
                ("coterie data verify store", "coterie data verify store other --quick"),
            ),
        },
    ),
    "tokenizer": (
        "Train and look into tokenizers.",
        {
            "train": Verb(
                "coterie.cli.tokenizer:train",
                "Train byte-level BPE on texts.",
                (
                    "coterie tokenizer train books/ --out tokenizer.json --vocab-size 8192",
                    "coterie tokenizer train shakespeare --out drama.json --special drama",
                ),
            ),
            "inspect": Verb(
                "coterie.cli.tokenizer:inspect",
                "Show how a tokenizer splits a text.",
                (
                    'coterie tokenizer inspect gpt2 "To be, or not to be"',
                    'coterie tokenizer inspect tokenizer.json "Once" --json',
                ),
            ),
        },
    ),
    "model": (
        "Look into models; extend their context; quantise, convert and exchange them.",
        {
            "show": Verb(
                "coterie.cli.model:show",
                "Show what a model is made of and what it costs.",
                ("coterie model show latest --tensors", "coterie model show gpt2 scale=tiny"),
            ),
            "extend": Verb(
                "coterie.cli.model:extend",
                "Give a trained model a longer context.",
                (
                    "coterie model extend latest context=1024 method=yarn",
                    "coterie model extend mine context=512 method=linear --name longer",
                ),
            ),
            "quantise": Verb(
                "coterie.cli.quantise:quantise",
                "Make a run whose weights take few bits.",
                (
                    "coterie model quantise latest --weights int8",
                    "coterie model quantise mine --weights int4 --name small",
                ),
            ),
            "convert": Verb(
                "coterie.cli.convert:convert",
                "Put a run's checkpoints into one file each, or into several.",
                (
                    "coterie model convert latest",
                    "coterie model convert mine --files 8 --step 1000",
                ),
            ),
            "import": Verb(
                "coterie.cli.exchange:import_model",
                "Make a run of a model from elsewhere.",
                (
                    "coterie model import path/to/SmolLM2 --name smollm",
                    "coterie model import model.gguf --tokenizer smollm",
                ),
            ),
            "export": Verb(
                "coterie.cli.exchange:export_model",
                "Write a model for other programs.",
                (
                    "coterie model export latest --format hf --out exported",
                    "coterie model export mine --format gguf --dtype q8_0 --out mine.gguf",
                ),
            ),
        },
    ),
    "align": (
        "Teach a model to answer, from rows of files.",
        {
            "sft": Verb(
                "coterie.cli.align:sft",
                "Fine-tune on conversations.",
                (
                    "coterie align sft latest rows.jsonl --lora 8",
                    "coterie align sft mine rows.parquet train.epochs=2 --name answers",
                ),
            ),
            "dpo": Verb(
                "coterie.cli.align:dpo",
                "Learn preferences from pairs.",
                (
                    "coterie align dpo latest pairs.jsonl",
                    "coterie align dpo answers pairs.jsonl align.beta=0.05 align.loss=ipo",
                ),
            ),
            "kto": Verb(
                "coterie.cli.align:kto",
                "Learn from answers marked good or bad.",
                (
                    "coterie align kto latest marked.jsonl",
                    "coterie align kto answers marked.jsonl align.undesirable=0.5 --lora 8",
                ),
            ),
            "adapters": Verb(
                "coterie.cli.adapters:adapters",
                "Write what a run with --lora learnt.",
                (
                    "coterie align adapters latest --out adapters.safetensors",
                    "coterie align adapters answers --peft --out adapter",
                ),
            ),
            "merge": Verb(
                "coterie.cli.adapters:merge",
                "Put adapters into the model they were tuned from.",
                (
                    "coterie align merge mine adapters.safetensors",
                    "coterie align merge mine adapters.safetensors --name merged",
                ),
            ),
            "reward-model": Verb(
                "coterie.cli.align:reward_model",
                "Learn to judge from pairs.",
                (
                    "coterie align reward-model latest pairs.jsonl",
                    "coterie align reward-model mine pairs.jsonl --name judge",
                ),
            ),
            "pairs": Verb(
                "coterie.cli.reinforce:pairs",
                "Make pairs by a reward, for dpo.",
                (
                    "coterie align pairs latest --reward metre --out pairs.jsonl",
                    "coterie align pairs mine --reward metre --out pairs.jsonl --count 500",
                ),
            ),
            "grpo": Verb(
                "coterie.cli.reinforce:grpo",
                "Reinforce what rewards judge better than the rest (GRPO).",
                (
                    "coterie align grpo latest --reward metre --reward long_words:weight=0.1",
                    "coterie align grpo mine --reward function:function=my_lab:polite",
                ),
            ),
            "reinforce": Verb(
                "coterie.cli.reinforce:reinforce",
                "Reinforce what rewards judge better (REINFORCE, leave one out).",
                (
                    "coterie align reinforce latest --reward metre",
                    "coterie align reinforce latest --reward metre --reward length",
                ),
            ),
            "ppo": Verb(
                "coterie.cli.reinforce:ppo",
                "Reinforce with a value head (PPO).",
                (
                    "coterie align ppo latest --reward metre",
                    "coterie align ppo latest --reward metre --reward repetition --lora 8",
                ),
            ),
            "rejection": Verb(
                "coterie.cli.reinforce:rejection",
                "Learn the best of several texts (rejection tuning).",
                (
                    "coterie align rejection latest --reward metre",
                    "coterie align rejection latest --reward metre align.texts_per_prompt=16",
                ),
            ),
        },
    ),
    "benchmark": (
        "Measure this machine, beside its limits and beside others.",
        {
            "decode": Verb(
                "coterie.cli.benchmark:decode",
                "Measure greedy decoding.",
                (
                    "coterie benchmark decode 29M --against transformers",
                    "coterie benchmark decode latest --batch 1,4,16,64 --json",
                ),
            ),
        },
    ),
    "verse": (
        "Scan verse and measure it.",
        {
            "scan": Verb(
                "coterie.cli.verse:scan",
                "Mark the stresses of lines and say why.",
                (
                    "coterie verse scan sonnet.txt",
                    "coterie verse scan tyger.txt --metre trochaic-tetrameter --json",
                ),
            ),
            "score": Verb(
                "coterie.cli.verse:score",
                "Measure metre, rhyme, words and structure.",
                (
                    "coterie verse score sonnet.txt --form sonnet-shakespearean",
                    "coterie verse score latest form=sonnet --samples 8",
                ),
            ),
            "picture": Verb(
                "coterie.cli.verse:picture",
                "Draw a poem with its stresses and rhymes.",
                (
                    "coterie verse picture sonnet.txt --out sonnet.svg --form sonnet",
                    "coterie verse picture sonnet.txt --out sonnet.png --dark",
                ),
            ),
        },
    ),
    "runs": (
        "What has been trained here.",
        {
            "list": Verb(
                "coterie.cli.runs:list_runs",
                "List the runs and how they went.",
                ("coterie runs list", "coterie runs list --json"),
            ),
            "show": Verb(
                "coterie.cli.runs:show",
                "Show one run.",
                ("coterie runs show latest", "coterie runs show mine --json"),
            ),
        },
    ),
}
