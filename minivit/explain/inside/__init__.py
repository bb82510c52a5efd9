"""Inside a forward pass: its parts recorded, replaced, added up to a logit, and ranked."""
