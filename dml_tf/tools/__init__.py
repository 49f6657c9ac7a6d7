"""What you do with networks: the command `dml_tf` and its parts that train, try, choose, deploy."""
