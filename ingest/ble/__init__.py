"""Bluetooth Low Energy chest straps."""
