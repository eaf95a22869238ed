"""A language model of 2 layers and random weights, in the format of llama.cpp; half a megabyte.

It talks nonsense, but quickly, always the same nonsense at temperature 0, and in whole words: ASCII, umlauts, Chinese
and an emoji, so that texts differ in bytes, characters and tokens. It never ends by itself.

Source: the GGUF specification, and the tensor names of llama.cpp's `llama` architecture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import gguf
import numpy as np

CONTEXT: Final = 32_768  # tokens: room for a generation that lasts until somebody ends it
WIDTH: Final = 64
HEADS: Final = 4
LAYERS: Final = 2
HIDDEN: Final = 128
TALK: Final = """
    a all and are as at be but by can come do each even find from give go good have he how if in into is it know like
    look make may more most new no not now of on one only or other out over people say see she so some take than that
    the their then there they think this time to two up use very want way well what when which who will with would year
    you für Grüße schön größer élan ça 日本 東京 你好 🙂 🚀
"""
WORDS: Final = TALK.split()
UNKNOWN, BEGIN, END = range(3)
CHAT_TEMPLATE: Final = "{% for m in messages %}{{ m.role }} say {{ m.content }} {% endfor %}you say"


def write(path: Path) -> None:
    """Weights are float32, drawn with a fixed seed."""
    tokens, kinds = _vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([float(len(token)) for token in tokens])  # the longest piece wins
    writer.add_token_types(kinds)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, tensor in _weights(kinds).items():
        writer.add_tensor(name, tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary() -> tuple[list[str], list[int]]:
    """Tokens and their kinds: three special ones, all bytes, the pieces that words are merged from, and the words."""
    whole = [f"▁{word}" for word in WORDS]
    starts = {word[:end] for word in whole for end in range(1, len(word))}
    pieces = sorted((starts | set("".join(whole))) - set(whole), key=lambda piece: (len(piece), piece))
    special, octets = ["<unk>", "<s>", "</s>"], [f"<0x{byte:02X}>" for byte in range(256)]
    kind = gguf.TokenType
    kinds = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL] + [kind.BYTE] * 256 + [kind.NORMAL] * len(pieces + whole)
    return special + octets + pieces + whole, [int(one) for one in kinds]


def _weights(kinds: list[int]) -> dict[str, np.ndarray]:
    """Tensors by name. Coordinate 0 is the same for all tokens, and no layer changes it: with it the last matrix keeps
    everything but words from being said."""
    random = np.random.default_rng(6)

    def matrix(rows: int, columns: int, size: float = 1.0) -> np.ndarray:
        return random.normal(scale=size / np.sqrt(columns), size=(rows, columns))

    size = len(kinds)
    embedding, output = matrix(size, WIDTH, 8.0), matrix(size, WIDTH, 4.0)
    embedding[:, 0] = 1.0
    output[:, 0] = -100.0
    output[-len(WORDS) :, 0] = 0.0
    weights = {"token_embd.weight": embedding, "output.weight": output, "output_norm.weight": np.ones(WIDTH)}
    for layer in range(LAYERS):
        added, down = matrix(WIDTH, WIDTH, 4.0), matrix(WIDTH, HIDDEN, 4.0)
        added[0] = down[0] = 0.0
        weights |= {
            f"blk.{layer}.attn_norm.weight": np.ones(WIDTH),
            f"blk.{layer}.attn_q.weight": matrix(WIDTH, WIDTH, 2.0),
            f"blk.{layer}.attn_k.weight": matrix(WIDTH, WIDTH, 2.0),
            f"blk.{layer}.attn_v.weight": matrix(WIDTH, WIDTH),
            f"blk.{layer}.attn_output.weight": added,
            f"blk.{layer}.ffn_norm.weight": np.ones(WIDTH),
            f"blk.{layer}.ffn_gate.weight": matrix(HIDDEN, WIDTH),
            f"blk.{layer}.ffn_up.weight": matrix(HIDDEN, WIDTH),
            f"blk.{layer}.ffn_down.weight": down,
        }
    return weights
