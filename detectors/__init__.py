"""Pure statistics of a model in production: detectors, windows, baseline and alert policy.

Everything here takes values and returns values: no clock, no input or output, and no import of the rest of the project.
"""
