"""The proof of faults: a call is made under every fault that it can meet, and each answer judged.

After Filibuster (Meiklejohn et al., "Service-Level Fault Injection Testing", SoCC 2021) and
lineage-driven fault injection (Alvaro et al., SIGMOD 2015): which faults there are to try is learnt
from calls that succeeded.
"""
