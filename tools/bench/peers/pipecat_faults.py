"""The faults our chaos harness throws at Trunkline, thrown at Pipecat, and what its callers hear of them.

    python tools/bench/peers/pipecat_faults.py [--quick] [--calls 6] [--trials 1] [--out FOLDER]

Installs Pipecat into out/peers/pipecat. The callers are those of `trunkline.testing.twilio`, who follow the TwiML when
a media stream breaks, as Twilio does. What is measured, and where that is unfair to either side, is told in `report`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tools.bench.peers.campaign import main

if __name__ == "__main__":
    main()
