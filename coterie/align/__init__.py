"""From a model that continues text to one that does what is wanted."""
