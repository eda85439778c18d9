"""Modules of urllib3 from which botocore imports names."""
