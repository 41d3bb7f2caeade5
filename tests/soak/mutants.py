# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The small faults that are put into a file, one at a time: a comparison turned, a constant moved, a statement left out.

Texts for people (strings with a space in them, f-strings, docstrings), annotations and decorators are left alone.
"""

from __future__ import annotations

import ast
import collections
import copy
import dataclasses
import typing as t

Edit = t.Callable[[t.Any], None]

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
#: Those whose turned form is the negation of the whole.
EXACT = (ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Is, ast.IsNot)
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
NAMES = {"any": "all", "all": "any", "min": "max", "max": "min"}
#: Calls that declare types and do nothing.
TYPING = {"TypeVar", "NewType", "cast"}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One fault. ``function`` is the qualified name of what holds it, ``lines`` the statement that it is in (first and last)."""

    file: str
    function: str
    line: str
    what: str
    lines: tuple[int, int]
    top: int  #: number of the top-level statement
    node: int  #: number of the node in ``ast.walk`` of that statement
    edit: Edit = dataclasses.field(compare=False)

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.file, self.function, self.line, self.what

    def __str__(self) -> str:
        return f"{self.file}:{self.lines[0]} in {self.function}: {self.what}    [{self.line}]"

    def statement(self, tree: ast.Module) -> ast.stmt:
        """The top-level statement with the fault in it; the tree stays as it is."""
        statement = copy.deepcopy(tree.body[self.top])
        self.edit(list(ast.walk(statement))[self.node])
        return ast.fix_missing_locations(statement)


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 120 else text[:117] + "..."


def _compare(node: ast.Compare, number: int) -> Edit:
    def edit(new: ast.Compare) -> None:
        new.ops[number] = COMPARISONS[type(node.ops[number])]()

    return edit


def _operator(node: ast.BinOp | ast.AugAssign) -> Edit:
    def edit(new: t.Any) -> None:
        new.op = OPERATORS[type(node.op)]()

    return edit


def _boolean(new: ast.BoolOp) -> None:
    new.op = ast.Or() if isinstance(new.op, ast.And) else ast.And()


def _constant(value: t.Any) -> Edit:
    def edit(new: ast.Constant) -> None:
        new.value = value

    return edit


def _twice(new: ast.UnaryOp) -> None:
    new.operand = ast.UnaryOp(ast.Not(), new.operand)


def _negated(new: t.Any) -> None:
    new.test = ast.UnaryOp(ast.Not(), new.test)


def _condition(number: int) -> Edit:
    def edit(new: ast.comprehension) -> None:
        new.ifs[number] = ast.UnaryOp(ast.Not(), new.ifs[number])

    return edit


def _nothing(new: ast.Return) -> None:
    new.value = ast.Constant(None)


def _renamed(new: ast.Name) -> None:
    new.id = NAMES[new.id]


def _removed(field: str, number: int) -> Edit:
    def edit(new: t.Any) -> None:
        getattr(new, field)[number] = ast.Pass()

    return edit


def _other(value: t.Any) -> t.Any:
    """Another constant of the same type; None if this one is left alone."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 2 + 1
    if isinstance(value, str):
        return None if any(character.isspace() for character in value.strip("\n")) else f"x{value}x"
    if isinstance(value, bytes):
        return value + b"x"
    return None


def _has_own_turn(test: ast.expr) -> bool:
    """Is the negation of this test one of its other mutants?"""
    if isinstance(test, ast.Compare):
        return len(test.ops) == 1 and isinstance(test.ops[0], EXACT)
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def _turn(node: ast.AST) -> Edit | None:
    """The one edit of an expression that has one."""
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        return _operator(node)
    if isinstance(node, ast.BoolOp):
        return _boolean
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _twice
    if isinstance(node, ast.Constant) and (other := _other(node.value)) is not None:
        return _constant(other)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in NAMES:
        return _renamed
    return None


def _turned(node: ast.AST, edit: Edit) -> tuple[str, Edit]:
    new = copy.deepcopy(node)
    edit(new)
    return f"{_text(node)} → {_text(new)}", edit


def edits(node: ast.AST) -> t.Iterator[tuple[str, Edit]]:
    """What can be done to one node: in words, and by which function on its copy."""
    if isinstance(node, ast.Compare):
        for number in range(len(node.ops)):
            yield _turned(node, _compare(node, number))
    if edit := _turn(node):
        yield _turned(node, edit)
    if isinstance(node, ast.Return) and node.value is not None and _text(node.value) != "None":
        yield f"{_text(node)} → return None", _nothing
    if isinstance(node, (ast.If, ast.While, ast.IfExp)) and not _has_own_turn(node.test):
        yield f"{_text(node.test)} → not ({_text(node.test)})", _negated
    if isinstance(node, ast.comprehension):
        for number, condition in enumerate(node.ifs):
            if not _has_own_turn(condition):
                yield f"{_text(condition)} → not ({_text(condition)})", _condition(number)
    for field in ("body", "orelse", "finalbody"):
        statements = getattr(node, field, None)
        for number, statement in enumerate(statements if isinstance(statements, list) else ()):
            if _removable(statement):
                yield f"{_text(statement)} → removed", _removed(field, number)


def _removable(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Call)
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in statement.targets)
    return isinstance(statement, (ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete))


def _left_alone(node: ast.AST) -> t.Iterator[ast.AST]:
    """Children of a node that are no behaviour."""
    yield from getattr(node, "decorator_list", ())
    for field in ("annotation", "returns", "bases", "keywords" if isinstance(node, ast.ClassDef) else "bases"):
        child = getattr(node, field, None)
        yield from child if isinstance(child, list) else [child] if child is not None else []
    body = getattr(node, "body", None)
    if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        yield body[0]
    if isinstance(node, ast.Call) and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in TYPING:
        yield from node.args[:1]
    if isinstance(node, ast.JoinedStr):
        yield from (part for part in node.values if isinstance(part, ast.Constant))
    if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
        yield node.format_spec
    # Declarations of types: ``Facts = t.Dict[str, t.Any]``.
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript) and ast.unparse(node.value).startswith("t."):
        yield node.value


def _extent(statement: ast.stmt) -> tuple[int, int]:
    """First and last line of a statement, without the statements in it."""
    inner = getattr(statement, "body", None)
    if isinstance(inner, list) and inner and not isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return statement.lineno, max(statement.lineno, inner[0].lineno - 1)
    return statement.lineno, statement.end_lineno or statement.lineno


def mutants(file: str, source: str) -> list[Mutant]:
    """All mutants of a file, in its order; two that would read the same are numbered."""
    tree, lines = ast.parse(source), source.splitlines()
    seen: collections.Counter[tuple[str, str, str]] = collections.Counter()
    found: list[Mutant] = []

    def visit(node: ast.AST, top: int, numbers: dict[int, int], function: str, statement: ast.stmt) -> None:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            function = f"{function}.{node.name}" if function else node.name
        if isinstance(node, ast.stmt):
            statement = node
        for what, edit in edits(node):
            at = statement
            if what.endswith("removed"):
                at = next(s for s in ast.walk(node) if isinstance(s, ast.stmt) and s is not node and f"{_text(s)} → removed" == what)
            line = lines[getattr(node if at is statement else at, "lineno", at.lineno) - 1].strip()
            name = function or "the module"
            seen[name, line, what] += 1
            count = seen[name, line, what]
            marked = what if count == 1 else f"{what} (#{count})"
            found.append(Mutant(file, name, line, marked, _extent(at), top, numbers[id(node)], edit))
        skipped = {id(child) for child in _left_alone(node)}
        for child in ast.iter_child_nodes(node):
            if id(child) not in skipped:
                visit(child, top, numbers, function, statement)

    for top, statement in enumerate(tree.body):
        if isinstance(statement, (ast.Import, ast.ImportFrom)) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        ):
            continue
        visit(statement, top, {id(node): number for number, node in enumerate(ast.walk(statement))}, "", statement)
    return found
