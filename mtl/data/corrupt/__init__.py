"""Labels hidden or made wrong on purpose."""
