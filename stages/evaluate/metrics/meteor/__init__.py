"""METEOR 1.5 for English: exact, without Java, on memory-mapped tables."""

from stages.evaluate.metrics.meteor.meteor import Meteor, MeteorScores, meteor
from stages.evaluate.metrics.meteor.statistics import MeteorStatistics, aggregate, score, score_of_sums

__all__ = ["Meteor", "MeteorScores", "MeteorStatistics", "aggregate", "meteor", "score", "score_of_sums"]
