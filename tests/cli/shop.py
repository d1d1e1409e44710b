"""What somebody has in the directory in which commands are given."""

import os
import threading

from dspex import Demos, Float, Program, deadlines, defvariable

both = threading.Barrier(2)


class Agent(Program):
    x = defvariable(Float(min=0.0, max=1.0), initial=0.1)
    free = defvariable(Float(), initial=0.0)

    def forward(self, q):
        return self.x


class Other(Program):
    y = defvariable(Float(min=0.0, max=1.0), initial=0.1)


class Stuck(Agent):
    def forward(self, q):
        if self.x != 0.1:
            print("stuck", flush=True)  # noqa: T201  for whoever waits for it
            threading.Event().wait()
        return self.x


class Asking(Agent):
    demos = defvariable(Demos(fields=("q", "answer"), max_items=2), initial=[])

    def init(self):
        from dspex.modules import Predict

        self.ask = Predict("q -> answer", temperature=Asking.x, demos=Asking.demos)

    def forward(self, q):
        return self.ask(q=q).answer


def metric(example, output):
    return output


def right(example, output, trace=None):
    return float(example.answer == output)


class Paired(Agent):
    """Ends when two of its runs are there at the same time."""

    def forward(self, q):
        both.wait(30)
        return self.x


class Timely(Agent):
    """As many seconds as it may take."""

    def forward(self, q):
        return deadlines.remaining() or 0.0


class Elsewhere(Agent):
    def forward(self, q):
        return os.getpid()


def elsewhere(example, output):
    return float(output != os.getpid())


def slowest(trials):
    return max(trials, key=lambda one: one.seconds)


number = 7
