#!/usr/bin/env python3
"""Two small tokenizers in GGUF, trained on data/wikitext2-test-sample.txt.gz, and what their own libraries make of some texts.

usage: gguf_tokenizers.py        needs: gguf tokenizers sentencepiece; writes crates/text/tests/gguf/{bpe,spm}.{gguf,json}
bpe: byte-level BPE with Llama 3's pre-tokenizer, by `tokenizers`. spm: BPE with byte fallback, by `sentencepiece`.
"""
import gzip, json, pathlib, tempfile
import gguf, sentencepiece, tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "crates/text/tests/gguf"
TEXT = gzip.open(ROOT / "data/wikitext2-test-sample.txt.gz", "rt").read()
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXTS = [
    "", " ", "hello", "Hello world", "  two  spaces", "It's 12345 o'clock, isn't it?\n\n\tYes!", "Zürich — naïve café, 東京 🙂\r\n x", "a\u0301 ﬁ", "the game the season",
    TEXT[1000:2500],
]
TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}"


def write(name, model, tokens, types, add):
    writer = gguf.GGUFWriter(OUT / f"{name}.gguf", "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_chat_template(TEMPLATE)
    add(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def goldens(name, by, encode, decode):
    cases = [dict(text=text, ids=encode(text), decoded=decode(encode(text))) for text in TEXTS]
    (OUT / f"{name}.json").write_text(json.dumps(dict(by=by, cases=cases), ensure_ascii=False) + "\n")


bpe = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
split = pre_tokenizers.Split(tokenizers.Regex(LLAMA3), "isolated")
bpe.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
bpe.decoder = decoders.ByteLevel()
special = ["<|begin_of_text|>", "<|end_of_text|>"]
bpe.train_from_iterator(TEXT.splitlines(keepends=True), trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
bpe.add_tokens(["<tool>"])
TEXTS_BPE = ["<|begin_of_text|>a<tool>b", "<|end_of_text|>"]
inner = json.loads(bpe.to_str())["model"]
merges = [m if isinstance(m, str) else " ".join(m) for m in inner["merges"]]
tokens = [bpe.id_to_token(i) for i in range(bpe.get_vocab_size())]


def add_bpe(writer):
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


write("bpe", "gpt2", tokens, [3 if t in special else 4 if t == "<tool>" else 1 for t in tokens], add_bpe)
TEXTS += TEXTS_BPE
goldens("bpe", f"tokenizers {tokenizers.__version__}", lambda t: bpe.encode(t, add_special_tokens=False).ids, lambda i: bpe.decode(i, skip_special_tokens=False))
TEXTS = TEXTS[: -len(TEXTS_BPE)]

with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "text").write_text(TEXT)
    sentencepiece.SentencePieceTrainer.train(
        input=f"{folder}/text", model_prefix=f"{folder}/m", model_type="bpe", vocab_size=700, byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, add_dummy_prefix=True, minloglevel=2,
    )
    spm = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/m.model")
size = spm.vocab_size()
kind = lambda i: 2 if spm.is_unknown(i) else 3 if spm.is_control(i) else 6 if spm.is_byte(i) else 1


def add_spm(writer):
    writer.add_token_scores([spm.get_score(i) for i in range(size)])
    writer.add_bos_token_id(spm.bos_id())
    writer.add_eos_token_id(spm.eos_id())
    writer.add_unk_token_id(spm.unk_id())


write("spm", "llama", [spm.id_to_piece(i) for i in range(size)], [kind(i) for i in range(size)], add_spm)
# An empty text has no words to put a space before.
goldens("spm", f"sentencepiece {sentencepiece.__version__}", spm.encode, spm.decode)
