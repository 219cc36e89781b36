"""What a plan rests on: rows counted, a sample drawn, and what both say of the others."""
