"""The study on ESC-10: one script per question, run as ``python -m analyses.<script>``; `all` runs all of them."""

# The networks whose ImageNet weights are installed as packages; questions about one network use the first.
BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
