"""Pickles that try something: run a program, crash the reader, or take its time and memory. Name -> bytes.

As a program it reads each with `interp_lib.released` under limits and prints, as JSON, what became of it:

    python tests/models/hostile_pickles.py FOLDER
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path

MARKER = "marker"  # the file that is there if anything was executed
MEMORY = 200 * 2**20  # bytes that a reader may take beyond what it has
SECONDS = 5

CALLED = {
    "os.system": f"touch {MARKER}",
    "posix.system": f"touch {MARKER}",
    "os.popen": f"touch {MARKER}",
    "subprocess.getoutput": f"touch {MARKER}",
    "builtins.eval": f"open('{MARKER}', 'w')",
    "builtins.exec": f"open('{MARKER}', 'w')",
    "__builtin__.eval": f"open('{MARKER}', 'w')",
    "builtins.__import__": "this",
    "importlib.import_module": "this",
    "runpy.run_module": "this",
    "os.mkdir": MARKER,
    "numpy.load": "/etc/passwd",
    "numpy.core.multiarray.fromfile": "/etc/passwd",
    "numpy._core.multiarray._reconstruct.__globals__": "x",
    "numpy.testing._private.utils.runstring": "1",
    "torch.load": "/etc/passwd",
    "pickle.loads": "x",
    "_codecs.encode": "x",
    "builtins.getattr": "x",
    "pathlib.Path.touch": MARKER,
}


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def calls() -> dict[str, bytes]:
    """Every name of `CALLED` by every operation that calls or imports, bare and inside a list of layers."""
    made = {}
    for called, argument in CALLED.items():
        module, _, name = called.rpartition(".")
        push, class_ = text(argument), f"c{module}\n{name}\n".encode()
        ways = {
            "reduce": class_ + push + b"\x85R",
            "stack global": text(module) + text(name) + b"\x93" + push + b"\x85R",
            "inst": b"(" + push + f"i{module}\n{name}\n".encode(),
            "obj": b"(" + class_ + push + b"o",
            "newobj": class_ + push + b"\x85\x81",
            "newobj_ex": class_ + push + b"\x85}\x92",
            "in a layer": b"](" + class_ + push + b"\x85R\x85e",
        }
        made |= {f"{called} by {way}": b"\x80\x04" + body + b"." for way, body in ways.items()}
    return made


def array(shape: bytes, data: bytes, dtype: bytes = b"X\x02\0\0\0f4\x89\x88\x87") -> bytes:
    """numpy's own array of a shape and bytes, each pushed by what is given."""
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    kind = b"cnumpy\ndtype\n" + dtype + b"R(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return made + b"(K\x01" + shape + kind + b"\x89" + data + b"tb"


def number(value: int) -> bytes:
    return b"\x8a\x10" + value.to_bytes(16, "little", signed=True)


def shaped(*sizes: int, floats: int = 1) -> bytes:
    return array(
        b"(" + b"".join(map(number, sizes)) + b"t", b"B" + (4 * floats).to_bytes(4, "little") + bytes(4 * floats)
    )


def layers(*pushed: bytes) -> bytes:
    return b"\x80\x03](" + b"".join(item + b"\x85" for item in pushed) + b"e."


def bombs() -> dict[str, bytes]:
    """What takes stack, time or memory instead."""
    deep, many = 200_000, 2_500
    twice = b"\x80\x04K\x00q\x09" + b"h\x09h\x09\x86q\x09" * 60  # in the memo: a tuple twice in the next, 2**60 leaves
    mega = shaped(1, 1, 250, 1000, floats=250_000)
    colliding = b"".join(number(k * (2**61 - 1)) + b"N" for k in range(40_000))
    return {
        "deep tuple as a key": b"\x80\x02})" + b"\x85" * deep + b"Ns.",
        "deep tuple as a key, many at once": b"\x80\x02}()" + b"\x85" * deep + b"Nu.",
        "deep tuple in a set": b"\x80\x04\x8f()" + b"\x85" * deep + b"\x90.",
        "deep tuple in a frozenset": b"\x80\x04()" + b"\x85" * deep + b"\x91.",
        "deep tuple": b"\x80\x02)" + b"\x85" * deep + b".",
        "deep tuple as a layer": layers(b")" + b"\x85" * deep),
        "deep tuple as a shape": layers(array(b")" + b"\x85" * 9_000, b"C\x04\0\0\0\0")),
        "deep tuple as a dtype": layers(array(b"K\x01\x85", b"C\x04\0\0\0\0", b")" + b"\x85" * 9_000 + b"\x85")),
        "deep list": b"\x80\x02" + b"]" * deep + b"a" * (deep - 1) + b".",
        "a tuple with 2**60 leaves": twice + b".",
        "a tuple with 2**60 leaves as a key": twice + b"}h\x09Ns.",
        "a tuple with 2**60 leaves as a layer": twice + layers(b"h\x09"),
        "a tuple with 2**60 leaves as a dtype": twice + layers(array(b"K\x01\x85", b"C\x04\0\0\0\0", b"h\x09\x85")),
        "a tuple with 2**60 leaves as a shape": twice + layers(array(b"h\x09", b"C\x04\0\0\0\0")),
        "a tuple with 2**60 leaves as a name": twice + b"h\x09h\x09\x93.",
        "a tuple with 2**60 leaves as a function": twice + b"h\x09)R.",
        "a tuple with 2**60 leaves as bytes": twice + layers(array(b"K\x01\x85", b"h\x09")),
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "a layer in itself": b"\x80\x02]q\x00h\x00\x85a.",
        "colliding keys": b"\x80\x02}(" + colliding + b"u.",
        "marks only": b"\x80\x02" + b"(" * 4_000_000 + b".",
        "lists only": b"\x80\x02" + b"]" * 4_000_000 + b".",
        "a memo of 2**32": b"\x80\x02]r\xff\xff\xff\xff.",
        "bytes of 2 GB": b"\x80\x03B\xff\xff\xff\x7f.",
        "bytes of 2**60": b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b".",
        "a bytearray of 2**40": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
        "a string of 2 GB": b"\x80\x03X\xff\xff\xff\x7f.",
        "a frame of 2**62": b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b".",
        "a number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "a number of a million digits": b"I" + b"9" * 10**6 + b"\n.",
        "a long of a million digits": b"L" + b"9" * 10**6 + b"L\n.",
        "a buffer outside": b"\x80\x05\x97.",
        "an object outside": b"\x80\x02X\x01\0\0\0xQ.",
        "an object outside, as text": b"Pelsewhere\n.",
        "an extension": b"\x80\x02\x82\x01.",
        "an extension in the cache": b"\x80\x02\x82\xf0" + text(f"touch {MARKER}") + b"\x85R.",
        "a large extension": b"\x80\x02\x84\xff\xff\xff\x7f.",
        "an empty array of four million": layers(shaped(1, 1, 0, 4_000_000, floats=0)),
        "a layer of 2**62 channels": layers(shaped(4, 4, 2**62, 16), shaped(1, 1, 100, 10)),
        "a head of 2**40 classes": layers(shaped(4, 4, 1, 16, floats=256), shaped(1, 1, 100, 2**40)),
        "a head of a million classes": layers(shaped(1, 1, 1, 16, floats=16), shaped(1, 1, 1, 10**6, floats=10**6)),
        "a first layer of a million channels": layers(shaped(1, 1, 10**6, 1, floats=10**6), shaped(1, 1, 1, 1)),
        "a negative shape": layers(shaped(-1, 1)),
        "one array many times": b"\x80\x03](" + mega + b"q\x01\x85" + b"h\x01\x85" * many + b"e.",
        "one array many times in a layer": b"\x80\x03]((" + mega + b"q\x01" + b"h\x01" * many + b"te.",
        "the same bytes many times": b"\x80\x03B"
        + (10**6).to_bytes(4, "little")
        + bytes(10**6)
        + b"q\x01"
        + layers(*[array(number(250_000) + b"\x85", b"h\x01")] * 300),
        "a name of a megabyte": b"\x80\x02c" + b"a" * 10**6 + b"\nb\n.",
        "a name that clears the screen": b"\x80\x02c\x1b[2Jos\nsystem\x07\n.",
        "a dtype of a megabyte": layers(array(b"K\x01\x85", b"C\x04\0\0\0\0", text("f" * 10**6) + b"\x85")),
        "nothing to take": b"\x80\x02R.",
        "nothing to stop with": b".",
        "a mark to stop with": b"(.",
        "a state for a name": b"\x80\x02cnumpy\ndtype\n(Nt\x86b.",
        "a dtype called with nothing": b"cnumpy\ndtype\n)R.",
        "a build of a list": b"\x80\x02])b.",
        "ndarray called": b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
        "memo never put": b"\x80\x02h\x07.",
        "text": b"<html>",
        "nothing": b"",
    }


def main(folder: str) -> None:
    import copyreg

    from interp_lib.models import released

    os.chdir(folder)
    copyreg.add_extension("os", "system", 240)
    copyreg._extension_cache[240] = os.system  # as after a first use: no unpickler asks for the name again
    taken = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))

    def late(*_):
        raise SystemExit("too late")

    signal.signal(signal.SIGALRM, late)
    for name, content in (calls() | bombs()).items():
        path = Path("network.pkl")
        path.write_bytes(content)
        print(json.dumps(name), end=": ", flush=True)  # before reading: a crash is this file's
        signal.alarm(SECONDS)
        try:
            released.read_network(path)
            said = "read"
        except released.ReleasedNetworkError as error:
            memory = isinstance(error.__context__, (MemoryError, RecursionError))
            said = f"out of limits: {error}" if memory else f"refused: {error}"
        signal.alarm(0)
        print(json.dumps(said), flush=True)
    print(json.dumps("executed"), ": ", json.dumps(str(Path(MARKER).exists())))


if __name__ == "__main__":
    main(*sys.argv[1:])
