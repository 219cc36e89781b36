"""The page about a job: its parts are plain values, made by plain functions; a template makes them HTML."""
