"""The study on ESC-10, a script per question, run as ``python -m analyses.<script>``; `all` makes all of it."""

# The networks whose ImageNet weights are installed as packages; questions asked of one network are asked of the first.
BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
