"""The command line: one command a file, data on stdout, talk on stderr."""
