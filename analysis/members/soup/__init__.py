"""Weight soups: the mean of the weights of trials that began alike, one network at inference.

Source: Wortsman, Ilharco, Gadre et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time, ICML 2022.
"""
