"""llama.cpp through its C interface, measured as engine_bench measures Baton: prints JSON.

python -m bench.llama MODEL THREADS
"""

import ctypes
import json
import sys
import time

import llama_cpp

PROMPT = 512
CONTEXT = 512
STEPS = 32
BATCHES = (1, 16)


class Engine:
    def __init__(self, path: str, threads: int, sequences: int):
        self.model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = sequences * (CONTEXT + STEPS + 32)
        params.n_batch = PROMPT
        params.n_ubatch = PROMPT
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(PROMPT, 0, 1)
        vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab = llama_cpp.llama_vocab_n_tokens(vocab)

    def run(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Rows of (token, position, sequence, logits wanted), computed to the end."""
        self.batch.n_tokens = len(rows)
        for i, (token, position, sequence, logits) in enumerate(rows):
            self.batch.token[i] = token
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = logits
        status = llama_cpp.llama_decode(self.context, self.batch)
        assert status == 0, f"llama_decode: {status}"
        llama_cpp.llama_get_logits_ith(self.context, -1)  # waits

    def prompt(self, sequence: int, tokens: int) -> float:
        """Seconds to compute a prompt; the sequence holds it afterwards."""
        rows = [(self.token(sequence, i), i, sequence, i == tokens - 1) for i in range(tokens)]
        started = time.perf_counter()
        self.run(rows)
        return time.perf_counter() - started

    def decode(self, sequences: int) -> float:
        """Seconds of STEPS steps of one token for each sequence, at CONTEXT tokens."""
        started = time.perf_counter()
        for step in range(STEPS):
            at = CONTEXT + step
            self.run([(self.token(s, at), at, s, True) for s in range(sequences)])
        return time.perf_counter() - started

    def token(self, sequence: int, i: int) -> int:
        return (sequence * 7919 + i * 104729) % self.vocab

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(self.memory, True)


def measure(path: str, threads: int) -> dict:
    found = {"decode_tok_s": {}}
    for sequences in BATCHES:
        engine = Engine(path, threads, sequences)
        for sequence in range(sequences):
            engine.prompt(sequence, CONTEXT)
        engine.decode(sequences)  # warm; the cells of these positions are then dropped
        for sequence in range(sequences):
            llama_cpp.llama_memory_seq_rm(engine.memory, sequence, CONTEXT, -1)
        found["decode_tok_s"][str(sequences)] = sequences * STEPS / engine.decode(sequences)
        if sequences == 1:
            engine.clear()
            engine.prompt(0, PROMPT)
            engine.clear()
            found["prefill_tok_s"] = PROMPT / engine.prompt(0, PROMPT)
        llama_cpp.llama_free(engine.context)
        llama_cpp.llama_model_free(engine.model)
    return found


def main() -> None:
    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))


if __name__ == "__main__":
    main()
