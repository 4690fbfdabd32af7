"""The use cases: what each command does, as typed functions; joins the rooms below."""
