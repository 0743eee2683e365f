"""The daemon that joins the rooms: windows, signal, storage, history, command line."""
