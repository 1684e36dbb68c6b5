"""The program inside a sandbox: runs the code that it is sent, and answers what came of it. Standard library alone.

It is started as `python -c THIS_FILE CONFIGURATION` and imports as little as it can, because every sandbox waits for
it. A message is a list of byte strings: their number, then each with its length before it, lengths in 4 bytes. Requests
come on standard input, answers go to standard output; model-written code gets others in their place.

    [b"execute", code]                                       in this process: variables stay
    [b"run", code, stdin, function, arguments, prelude, name, content, ...]   in a fork; all but code may be empty

Each is answered by [stdout, stderr, value, error, stopped, exit code]; a first, empty answer says that all is ready.
Model-written code shares this process or its user, so it can forge any answer: whoever reads one must not trust it.
"""

# ruff: noqa: SIM105, SIM115
# `contextlib` would cost every start several milliseconds, and the streams stay open.

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` takes longer than all the rest
    from typing import Any, NoReturn

_END = 0.5
"""How much later than the first the second limit on CPU time comes, in seconds."""
_TEXTS = ("packages", "folder", "scratch")
_sources: dict[str, str] = {}
"""What was run, by the name in tracebacks."""
_folders: list[str] = []
"""Where scratch files are."""


class _OutOfTime(BaseException):
    """No `Exception`, which code catches more often."""


class _Caught:
    """Takes whatever model-written code raises, for here that is a result."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self):
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error
        return True


def _main() -> None:
    config: dict[str, str] = dict(part.split("=", 1) for part in sys.argv[1].split(","))  # type: ignore
    number = {name: float(value) for name, value in config.items() if name not in _TEXTS}
    requests, answers = os.dup(0), os.dup(1)
    _restrict(number)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    if config.get("packages"):
        sys.path.append(config["packages"])
    _folders.append(config["scratch"])
    os.chdir(config["folder"])
    sys.argv = [""]
    import builtins

    builtins.exit = builtins.quit = sys.exit  # `site`, which would bring them, costs a third of the start
    state = _fresh_namespace()
    _send(answers, [])
    os.dup2(nothing, 2)
    while True:
        request = _receive(requests)
        answer = (_execute if request[0] == b"execute" else _run)(request[1:], number, state)
        if number["owns_pids"]:
            _kill_the_others(int(number["outer_pids"]))
        _send(answers, answer)


def _restrict(number: dict[str, float]) -> None:
    """Give up every right that is left, for good."""
    import resource

    if number["user"]:
        os.setgroups([])
        os.setresgid(int(number["user"]), int(number["user"]), int(number["user"]))
        os.setresuid(int(number["user"]), int(number["user"]), int(number["user"]))
    for name, value in (
        ("RLIMIT_AS", number["memory"]),
        ("RLIMIT_NPROC", number["processes"]),
        ("RLIMIT_FSIZE", number["file"]),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NOFILE", 256),
        ("RLIMIT_MSGQUEUE", 0),
        ("RLIMIT_MEMLOCK", 0),
    ):
        if name == "RLIMIT_NPROC" and not value:
            continue
        hard = resource.getrlimit(getattr(resource, name))[1]
        limit = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(getattr(resource, name), (limit, limit))
    os.nice(5)
    os.umask(0o077)


def _fresh_namespace() -> dict[str, object]:
    import builtins

    return {"__name__": "__main__", "__builtins__": builtins, "__doc__": None}


def _execute(request: list[bytes], number: dict[str, float], state: dict[str, object]) -> list[bytes]:
    """Run code in this process; the value of a last expression is part of the answer."""
    output = [_scratch(), _scratch()]
    _redirect(output)
    value = error = stopped = b""
    with _Caught() as caught:
        try:
            _limit_cpu(number)
            _alarm(number["wall"])
            found = _evaluate(request[0].decode("utf-8", "replace"), state)
            if found is not None:
                value = repr(found).encode("utf-8", "replace")
        finally:
            _alarm(0)
    if isinstance(caught.error, _OutOfTime):
        stopped = b"timeout"
    elif isinstance(caught.error, MemoryError):
        error, stopped = b"MemoryError: the memory limit was reached", b"memory"
    elif caught.error is not None:
        error = _describe(caught.error)
    _flush()
    end = int(number["output"]) + 1
    return [*(_contents(file, number) for file in output), value[:end], error[:end], stopped, b""]


def _evaluate(code: str, state: dict[str, object]) -> object:
    import _ast

    name = _named(code)
    tree: Any = compile(code, name, "exec", _ast.PyCF_ONLY_AST)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], _ast.Expr) else None
    exec(compile(tree, name, "exec"), state)
    return None if last is None else eval(compile(_ast.Expression(last.value), name, "eval"), state)


def _named(code: str) -> str:
    """Keep the code for tracebacks, and return the file name that it goes by."""
    name = "<code>" if not _sources else f"<code {len(_sources) + 1}>"
    _sources[name] = code
    return name


def _run(request: list[bytes], number: dict[str, float], state: dict[str, object]) -> list[bytes]:
    """Run a program, or call one of its functions, in a fork that is gone before the answer."""
    stdin = request[1]
    source, result = _scratch(), _scratch()
    output = [_scratch(), _scratch()]
    _write_all(source, stdin)
    os.lseek(source, 0, 0)
    child = os.fork()
    if child == 0:
        _program(request, source, result, output, number)
    stopped, status = b"", 0
    try:
        _alarm(number["wall"])
        try:
            status = os.waitpid(child, 0)[1]
        finally:
            _alarm(0)
    except _OutOfTime:
        stopped = b"timeout"
        os.kill(child, 9)
        status = os.waitpid(child, 0)[1]
    os.close(source)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    if not stopped and code < 0:
        stopped = b"cpu" if -code == 24 else b"killed"
    for file in output:
        if os.fstat(file).st_size > number["output"]:
            stopped = stopped or b"output"
    error = b"" if code == 0 else f"exit code {code}".encode()
    texts = [_contents(file, number) for file in output]
    return [*texts, _contents(result, number), error, stopped, str(code).encode()]


def _program(request: list[bytes], source: int, result: int, output: list[int], number: dict[str, float]) -> "NoReturn":
    """The life of the fork."""
    status = 1
    try:
        with _Caught() as caught:
            os.dup2(source, 0)
            _redirect(output)
            sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)
            _limit_cpu(number)
            _play(request, result)
        status = _status(caught.error)
        _flush()
    finally:
        os._exit(status & 255)


def _play(request: list[bytes], result: int) -> None:
    code, _, function, arguments, prelude, *files = request
    for name, content in zip(files[::2], files[1::2], strict=True):
        os.makedirs(os.path.dirname(os.path.abspath(name.decode())), exist_ok=True)
        with open(name.decode(), "wb") as file:
            file.write(content)
    text = code.decode("utf-8", "replace")
    namespace = _fresh_namespace()
    if function:
        namespace["__name__"] = "solution"
    module = type(sys)(str(namespace["__name__"]))
    sys.modules[module.__name__] = module
    vars(module).update(namespace)
    exec(compile(prelude, "<prelude>", "exec"), vars(module))
    vars(module).pop(function.decode(), None)  # `operator.add` is no answer to "write add"
    exec(compile(text, _named(text), "exec"), vars(module))
    if function:
        _write_all(result, _call(vars(module), function.decode(), arguments))


def _status(error: BaseException | None) -> int:
    """Say what a program's end means, as the interpreter itself would."""
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        os.write(2, _describe(error))
        return 1
    if isinstance(error.code, str):
        os.write(2, error.code.encode("utf-8", "replace") + b"\n")
    return error.code if isinstance(error.code, int) else 0 if error.code is None else 1


def _call(namespace: "dict[str, Any]", name: str, arguments: bytes) -> bytes:
    """Call a function of the program, or a method of its class `Solution`; return the result as JSON."""
    import json

    owner = namespace.get("Solution")
    target = getattr(owner(), name, None) if owner is not None else None
    target = namespace.get(name) if target is None else target
    if target is None:
        raise NameError(f"the program defines no function {name!r}")
    return json.dumps(target(*json.loads(arguments))).encode()


def _limit_cpu(number: dict[str, float]) -> None:
    """The kernel's limit, per process; whoever watches from outside adds the processes up."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime + number["cpu"] + _END) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, hard))


def _alarm(seconds: float) -> None:
    import _signal  # pyright: ignore[reportMissingImports]
    # `signal` imports `enum`, which takes as long as all the rest

    _signal.signal(_signal.SIGALRM, _interrupt)
    _signal.setitimer(_signal.ITIMER_REAL, seconds, 0.25)  # again, for code that caught the first


def _interrupt(number: int, frame: object) -> None:
    raise _OutOfTime


def _scratch() -> int:
    """A file without a name, in a folder of its own: code that fills its folder can still say so."""
    return os.open(_folders[0], os.O_RDWR | os.O_TMPFILE, 0o600)


def _redirect(output: list[int]) -> None:
    for number, file in zip((1, 2), output, strict=True):
        os.dup2(file, number)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8", errors="replace", closefd=False, buffering=1)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()  # pyright: ignore[reportOptionalMemberAccess]
        except (OSError, ValueError, AttributeError):  # past the file limit, or the code closed or replaced it
            pass


def _contents(file: int, number: dict[str, float]) -> bytes:
    """The beginning of a scratch file, one byte more than the limit where there is more; closes it."""
    text = os.pread(file, int(number["output"]) + 1, 0)
    os.close(file)
    return text


def _describe(error: BaseException) -> bytes:
    """The traceback of what the model's code raised, from its own first line on."""
    import linecache
    import traceback

    for name, code in _sources.items():
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith("<code"):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).encode("utf-8", "replace")


def _kill_the_others(outer_pids: int) -> None:
    """Kill what code left running. Only where this process provably has a process namespace of its own."""
    if os.stat("/proc/self/ns/pid").st_ino == outer_pids:
        return
    try:
        os.kill(-1, 9)
    except ProcessLookupError:
        pass
    try:
        while os.waitpid(-1, 0)[0]:
            pass
    except ChildProcessError:
        pass


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _send(file: int, parts: list[bytes]) -> None:
    _write_all(file, b"".join([_size(parts), *(_size(part) + part for part in parts)]))


def _size(value: bytes | list[bytes]) -> bytes:
    return len(value).to_bytes(4, "big")


def _receive(file: int) -> list[bytes]:
    """Read one request; the end of the requests ends this process."""
    return [_read(file, _length(file)) for _ in range(_length(file))]


def _length(file: int) -> int:
    return int.from_bytes(_read(file, 4), "big")


def _read(file: int, size: int) -> bytes:
    pieces = []
    while size:
        piece = os.read(file, min(size, 1 << 20))
        if not piece:
            os._exit(0)
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


if __name__ == "__main__":
    _main()
