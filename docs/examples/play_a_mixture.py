import asyncio

from gymrail.collect.batch import play_batch
from gymrail.data.member import Member
from gymrail.data.mixing import Curriculum, DynamicSampling, Mixing
from gymrail.data.mixture import Mixture
from gymrail.data.mixture_stream import MixtureStream
from gymrail.models.scripted import Oracle
from gymrail.registry import find

mixing = Mixing(unit="tokens", curriculum=Curriculum(), dynamic_sampling=DynamicSampling(probe=4))
mixture = Mixture([Member(find("word_math"), weight=2), Member(find("treasure_hunt"), floor=1)], seed=0, mixing=mixing)
stream = MixtureStream(mixture)
batch = asyncio.run(play_batch(stream, Oracle(noise=0.5), groups=8, repeats=8, step=0))
print(batch.metrics())
