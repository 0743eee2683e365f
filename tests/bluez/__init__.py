"""A virtual BlueZ on a private D-Bus, with virtual straps, for tests without a radio."""
