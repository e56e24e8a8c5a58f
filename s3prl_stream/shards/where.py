"""`where`: a small expression over index columns, compiled to a pyarrow expression. Nothing is evaluated as code."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from s3prl_stream.errors import UsageError

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "__eq__",
    ast.NotEq: "__ne__",
    ast.Lt: "__lt__",
    ast.LtE: "__le__",
    ast.Gt: "__gt__",
    ast.GtE: "__ge__",
}
MAX_CONDITIONS = 2000
"""Joined in one expression: Arrow walks it by recursion, and of some 10 000 in a row it crashes."""

_TEXT_TYPES = ("string", "large_string", "dictionary")


@dataclass(frozen=True)
class Condition:
    """A pyarrow expression with words for messages: those that it was made of."""

    expression: Any
    words: str

    def __str__(self) -> str:
        return self.words


def compile_where(where: Any, columns: Mapping[str, str], *, known_columns: Callable[[str], str] | None = None) -> Any:
    """An expression such as `language == "en" and seconds > 2 and speaker not in ("a", "b")` -> pyarrow expression.

    Allowed are column names, numbers, strings, True, False, None, comparisons, `in` / `not in` over a list of
    constants, `is None` / `is not None`, `and`, `or`, `not`. A column of text compared with a number is read as
    numbers. Comparisons with a missing value are null, whatever `not` stands before them; it is `in` a list only where
    None stands there, and else `not in` it. A pyarrow expression passes as it is.

    Args:
        where: the text, a `pyarrow.compute.Expression`, or a `Condition`.
        columns: index column -> Arrow type.
        known_columns: for the message about a column that is not there, see `ShardSet.known_columns`.

    Raises:
        UsageError: anything else, an unknown column, or more than `MAX_CONDITIONS` comparisons.
    """
    import pyarrow.compute

    if isinstance(where, Condition):
        return where.expression
    if isinstance(where, pyarrow.compute.Expression):
        return where
    if not isinstance(where, str):
        raise UsageError(f"where: {where!r} is neither text nor a pyarrow expression")
    try:
        tree = ast.parse(where.strip(), mode="eval")
        if (conditions := sum(isinstance(node, ast.cmpop) for node in ast.walk(tree))) > MAX_CONDITIONS:
            raise UsageError(
                f"where: {where!r:.200} has {conditions} comparisons, at most {MAX_CONDITIONS}. Of many values of a "
                "column write: key in ('a', 'b', 'c')"
            )
        return _Compiler(where, columns, known_columns).condition(tree.body)
    except UsageError:
        raise
    except OverflowError:
        raise UsageError(
            f"where: {where!r:.200}: a whole number is beyond what its column can hold (64 bits)"
        ) from None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        reason = " ".join(str(getattr(error, "msg", error)).split())
        raise UsageError(
            f"where: {where!r:.200} is not an expression ({reason}). Write it as in: language == 'en' and seconds > 2"
        ) from None


def without(where: Any, held_out: str | None, columns: Mapping[str, str]) -> Any:
    """`where` for the rows that `held_out` does not select; None: all rows. Errors of `compile_where`."""
    import pyarrow.compute

    if held_out is None:
        return where
    # a condition on a missing value is neither true nor false: such rows are not held out
    others = ~pyarrow.compute.coalesce(compile_where(held_out, columns), False)
    if where is None:
        return Condition(others, f"not ({held_out})")
    return Condition(compile_where(where, columns) & others, f"({where}) and not ({held_out})")


class _Compiler:
    def __init__(self, where: str, columns: Mapping[str, str], told: Callable[[str], str] | None) -> None:
        self.where = where
        self.columns = columns
        self.told = told or (lambda _: f"the index has {', '.join(columns)}")

    def condition(self, node: ast.expr) -> Any:
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(value) for value in node.values]
            result = parts[0]
            for part in parts[1:]:
                result = result & part if isinstance(node.op, ast.And) else result | part
            return result
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.condition(node.operand)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Name):
            column, kind = self._column(node), self.columns[node.id]
            if kind != "bool":
                raise UsageError(
                    f"where: {self.where!r:.200}: the column {node.id!r} holds {kind}, which is no condition. Write "
                    f"what it has to be, such as {node.id} is not None"
                )
            return column
        raise self._refuse(node)

    def _comparison(self, node: ast.Compare) -> Any:
        import pyarrow.compute

        sides = [node.left, *node.comparators]
        result = None
        for left, operation, right in zip(sides, node.ops, sides[1:], strict=False):
            if isinstance(operation, ast.In | ast.NotIn):
                values = self._constants(right)
                of_left = self._column(left, number=bool(values) and not isinstance(values[0], str))
                one = of_left.isin(pyarrow.array(values, "uint64") if self._is_hash([left], values) else values)
                one = ~one if isinstance(operation, ast.NotIn) else one
            elif isinstance(operation, ast.Is | ast.IsNot):
                if self._constant(right) is not None:
                    raise self._refuse(right)
                one = self._column(left).is_null()
                one = ~one if isinstance(operation, ast.IsNot) else one
            else:
                constants = [self._constant(side) for side in (left, right) if not isinstance(side, ast.Name)]
                if None in constants:
                    raise UsageError(
                        f"where: {self.where!r:.200} compares with None, which no value equals: write is None"
                    )
                number = any(isinstance(value, int | float) for value in constants)
                kind = "uint64" if self._is_hash([left, right], constants) else None
                values = [
                    self._column(side, number=number)
                    if isinstance(side, ast.Name)
                    else pyarrow.compute.scalar(pyarrow.scalar(self._constant(side), kind))
                    for side in (left, right)
                ]
                one = getattr(values[0], _COMPARISONS[type(operation)])(values[1])
            result = one if result is None else result & one
        return result

    def _is_hash(self, nodes: list[ast.expr], values: list[Any]) -> bool:
        """Whether a column of 64 unsigned bits meets integers of that range, which Arrow would take for signed ones."""
        kinds = [self.columns.get(node.id) for node in nodes if isinstance(node, ast.Name)]
        return "uint64" in kinds and all(type(value) is int and 0 <= value < 2**64 for value in values)

    def _column(self, node: ast.expr, *, number: bool = False) -> Any:
        import pyarrow.compute

        if not isinstance(node, ast.Name):
            raise self._refuse(node)
        if node.id not in self.columns:
            near = difflib.get_close_matches(node.id, self.columns, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"where: no column {node.id!r}; {self.told(node.id)}.{hint}")
        field = pyarrow.compute.field(node.id)
        return field.cast("double") if number and self.columns[node.id].startswith(_TEXT_TYPES) else field

    def _constants(self, node: ast.expr) -> list[Any]:
        if not isinstance(node, ast.List | ast.Tuple | ast.Set):
            raise self._refuse(node)
        return [self._constant(element) for element in node.elts]

    def _constant(self, node: ast.expr) -> Any:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._constant(node.operand)
            if isinstance(value, int | float):
                return -value
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
            return node.value
        raise self._refuse(node)

    def _refuse(self, node: ast.expr) -> UsageError:
        found = ast.get_source_segment(self.where.strip(), node) or ast.dump(node)
        kind = "a function call" if isinstance(node, ast.Call) else "this"
        return UsageError(
            f"where: {kind} is not allowed: {found!r:.200}. "
            "Allowed are columns, constants, comparisons, in, is None, and, or, not."
        )
