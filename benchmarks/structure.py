"""Figures of the code: size, functions, types, fragments and rooms. Reads the sources and runs nothing.

python -m benchmarks.structure            this checkout
python -m benchmarks.structure --root DIR another one, such as an older commit in a worktree
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGE_FILE = 400
MANY_METHODS = 15
ROOMS_OF_FILES = {"tasks", "tasks.remote", "tasks.roles", "algos"}
"""Packages with rooms inside; each of their own files counts as a room."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    """Prints one figure a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT)
    root = parser.parse_args().root
    product = sources(root)
    for name, value in [*sizes(root, product), *functions(product), *fragments(product), *rooms(root, product)]:
        print(f"{name:<48}{value}")


def sources(root: Path) -> dict[Path, ast.Module]:
    """The product's files, tests and benchmarks left out, with their syntax trees."""
    files = [root / "train.py", *sorted((root / "tasks").rglob("*.py")), *sorted((root / "algos").rglob("*.py"))]
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}


def sizes(root: Path, product: dict[Path, ast.Module]) -> Iterator[tuple[str, str]]:
    """Prints numbers of lines."""
    lines = {file: line_count(file) for file in product}
    yield "product: files", f"{len(lines)}"
    yield "product: lines", f"{sum(lines.values())}"
    yield "product: median file [lines]", f"{statistics.median(lines.values()):.0f}"
    yield f"product: files of more than {LARGE_FILE} lines", f"{sum(count > LARGE_FILE for count in lines.values())}"
    yield (
        "tasks/remote: lines",
        f"{sum(count for file, count in lines.items() if is_below(file, root / 'tasks/remote'))}",
    )
    configuration = [file for file in lines if "config" in file.as_posix().removeprefix(root.as_posix())]
    yield "configuration: files, lines", f"{len(configuration)}, {sum(lines[file] for file in configuration)}"
    tests = sorted((root / "tests").rglob("*.py"))
    yield "tests: files, lines", f"{len(tests)}, {sum(map(line_count, tests))}"
    yield "documented modules", share(ast.get_docstring(tree) is not None for tree in product.values() if tree.body)


def functions(product: dict[Path, ast.Module]) -> Iterator[tuple[str, str]]:
    """Lengths and annotations of functions."""
    found = [node for tree in product.values() for node in ast.walk(tree) if isinstance(node, Function)]
    lengths = sorted((node.end_lineno or node.lineno) - node.lineno + 1 for node in found)
    p95 = lengths[int(0.95 * (len(lengths) - 1))]
    yield "functions: median, p95, max [lines]", f"{statistics.median(lengths):.0f}, {p95}, {lengths[-1]}"
    yield (
        "annotated parameters and returns",
        share(is_annotated for node in found for is_annotated in typed_parts(node)),
    )
    classes = [node for tree in product.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    many = sum(sum(isinstance(part, Function) for part in node.body) > MANY_METHODS for node in classes)
    yield f"classes of more than {MANY_METHODS} methods", f"{many}"
    total = sum(line_count(file) for file in product)
    anys = sum(isinstance(node, ast.Name) and node.id == "Any" for tree in product.values() for node in ast.walk(tree))
    yield "Any per 1000 lines", f"{1000 * anys / total:.1f}"


def fragments(product: dict[Path, ast.Module]) -> Iterator[tuple[str, str]]:
    """Prints signs of code that is cut too small."""
    once = private = forwards = 0
    words = Counter(word for file in product for word in re.findall(r"\b_\w+", file.read_text(encoding="utf-8")))
    for tree in product.values():
        for node in (node for node in ast.walk(tree) if isinstance(node, Function)):
            if node.name.startswith("_") and not node.name.startswith("__"):
                private += 1
                once += words[node.name] == 2  # its definition, and one use
            forwards += only_forwards(node)
    yield "private functions, of them used once", f"{private}, {once}"
    yield "methods that only forward", f"{forwards}"
    text = "\n".join(file.read_text(encoding="utf-8") for file in product)
    yield "Protocols", f"{len(re.findall(r'^class .*Protocol', text, re.MULTILINE))}"
    yield "thread starts", f"{len(re.findall(r'Thread[(]', text))}"
    yield "conditions", f"{len(re.findall(r'Condition[(]', text))}"


def rooms(root: Path, product: dict[Path, ast.Module]) -> Iterator[tuple[str, str]]:
    """Folders as rooms, imports as arrows between them, circles of modules."""
    modules = {module_name(root, file): tree for file, tree in product.items()}
    imports = {name: set(own_imports(tree, modules)) - {name} for name, tree in modules.items()}
    packages = {module_name(root, file) for file in product if file.name == "__init__.py"}

    def room(name: str) -> str:
        folder = name.rpartition(".")[0]
        return name if name in packages or not folder or folder in ROOMS_OF_FILES else folder

    arrows = {(room(name), room(other)) for name, others in imports.items() for other in others}
    yield "rooms", f"{len({room(name) for name in modules})}"
    yield "arrows between rooms", f"{sum(start != end for start, end in arrows)}"
    yield "modules in or above a circle of imports", f"{len(in_circles(imports))}"


def in_circles(imports: dict[str, set[str]]) -> set[str]:
    """The modules that remain when modules without imports are removed again and again."""
    left = {name: set(others) for name, others in imports.items()}
    while ready := [name for name, others in left.items() if not others & left.keys()]:
        for name in ready:
            del left[name]
    return set(left)


def own_imports(tree: ast.Module, modules: dict[str, ast.Module]) -> Iterator[str]:
    """Modules of the product that a file imports, at the top or at use."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name:
                yield name


def only_forwards(node: Function) -> bool:
    """Whether a method's body is one call of the same name on something it holds."""
    body = [part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
    if len(body) != 1 or not isinstance(body[0], ast.Return | ast.Expr):
        return False
    call = body[0].value
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == node.name


def typed_parts(node: Function) -> Iterator[bool]:
    """Whether each parameter, but for self and cls, and the return value have types."""
    for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        if argument.arg not in ("self", "cls"):
            yield argument.annotation is not None
    yield node.returns is not None


def module_name(root: Path, file: Path) -> str:
    """``tasks/sim/track.py``: tasks.sim.track."""
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def line_count(file: Path) -> int:
    """Lines, comments and empty ones included."""
    return len(file.read_text(encoding="utf-8").splitlines())


def is_below(file: Path, folder: Path) -> bool:
    """Whether a file lies in a folder."""
    return file.is_relative_to(folder)


def share(facts: Iterator[bool]) -> str:
    """Percentage of true values."""
    values = list(facts)
    return f"{100 * sum(values) / len(values):.1f} %"


if __name__ == "__main__":
    main()
