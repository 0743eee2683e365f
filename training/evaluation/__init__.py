"""How good networks are: functions on arrays and on torch modules, without files or options."""
