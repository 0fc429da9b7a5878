#!/usr/bin/env python3
"""A byte-level tokenizer without merges for the tiny random models: ids 0 to 2 are pad, bos, eos, byte b is 3 + b.
usage: byte_tokenizer.py MODEL_DIR ..."""
import json, sys

printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
others = [b for b in range(256) if b not in printable]
letter = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}  # GPT-2's byte alphabet
special = ["<pad>", "<bos>", "<eos>"]
vocab = {s: i for i, s in enumerate(special)} | {letter[b]: 3 + b for b in range(256)}
level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)
tokenizer = dict(
    version="1.0", truncation=None, padding=None,
    added_tokens=[dict(id=i, content=s, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True) for i, s in enumerate(special)],
    normalizer=None, pre_tokenizer=level, post_processor=None, decoder=level,
    model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=False, byte_fallback=False, ignore_merges=False, vocab=vocab, merges=[]),
)
for folder in sys.argv[1:]:
    json.dump(tokenizer, open(f"{folder}/tokenizer.json", "w"), ensure_ascii=False, separators=(",", ":"))
    json.dump(dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", add_bos_token=False), open(f"{folder}/tokenizer_config.json", "w"), indent=1)
