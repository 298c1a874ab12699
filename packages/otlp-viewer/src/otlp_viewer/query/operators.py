"""Calculations and filter operators: Honeycomb's names and their equivalents in DuckDB."""

PERCENTILES = {
    f"P{digits}": float(f"0.{digits}")
    for digits in ("001", "01", "05", "10", "25", "50", "75", "90", "95", "99", "999")
}
# Calculations on numbers; `{}` is the number.
OF_NUMBERS = {
    "SUM": "sum({})",
    "AVG": "avg({})",
    "MIN": "min({})",
    "MAX": "max({})",
    **{op: f"quantile_cont({{}}, {fraction})" for op, fraction in PERCENTILES.items()},
    "HEATMAP": "",
}
CALCULATIONS = ("COUNT", "COUNT_DISTINCT", *OF_NUMBERS)
COMPARISONS = ("=", "!=", ">", ">=", "<", "<=")
OF_TEXT = {"contains": "contains", "starts-with": "starts_with", "ends-with": "suffix"}
OPPOSITES = {
    "!=": "=",
    "does-not-contain": "contains",
    "does-not-start-with": "starts-with",
    "does-not-end-with": "ends-with",
    "does-not-exist": "exists",
    "not-in": "in",
}
FILTERS = (*COMPARISONS, *OF_TEXT, "exists", "in", *(op for op in OPPOSITES if op != "!="))
