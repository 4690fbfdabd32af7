"""What another process asks of the run that holds a directory: one way in, one way out. Changes no job itself."""
