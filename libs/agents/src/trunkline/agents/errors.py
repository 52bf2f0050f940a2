"""What reading agent files refuses.

AgentFileError    one or more agent files cannot be used; the text has a line for each problem
"""


class AgentFileError(Exception):
    """Agent files that are not what an agent file must be."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
