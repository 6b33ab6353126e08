"""The sections of a run's page, each in a file with what it reads; `section` is their form."""
