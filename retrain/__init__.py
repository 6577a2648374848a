"""The retrain loop: from an alert to a challenger that is proven, promoted and announced."""
