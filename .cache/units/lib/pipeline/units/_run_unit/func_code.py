# first line: 59
def _run_unit(key: str, function: Callable[..., Any], unit: dict[str, Any]) -> Any:
    return function(**unit)
