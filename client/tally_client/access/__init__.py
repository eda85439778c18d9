"""Administration of access: who may do what to which counters.

These modules call AWS with the administrator's own credentials. They need the package boto3, which
the extra `aws` installs. They import it only when it is used, because the other commands of `tally`
would start more slowly.
"""
