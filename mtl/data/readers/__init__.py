"""Readers: from files, data frames and arrays to cells, and from cells to a table."""
