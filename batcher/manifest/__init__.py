"""A file of prompts and images becomes a stream of jobs, or every fault it has."""
