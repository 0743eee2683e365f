"""ECG that devices send through an MQTT broker."""
