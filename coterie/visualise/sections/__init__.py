"""The sections of a run's page, each with what it reads; `section` is their form."""
