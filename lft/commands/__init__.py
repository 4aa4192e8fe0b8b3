"""What the commands for people do, as :mod:`lft.cli` offers them: nothing here is part of a job."""
